#!lua
-- KEYS[1] is a stream with an entry for each publication. The entry's id is the publication's
-- offset. KEYS[2] is a hash with the epoch, the top offset, and the replication id of the server
-- that last wrote it.

-- Returns the reply, or nil if the key has another type. Any other error, such as a missing right,
-- ends the script, because it does not show that the stream is damaged.
local function of_type(reply)
  if not reply.err then
    return reply
  end
  if not string.find(reply.err, '^WRONGTYPE') then
    error(reply)
  end
end

-- Fails unless the user may send this command. If a command of a script fails because of a missing
-- right, Redis does not undo the earlier commands, so rights are checked first.
local function demand(...)
  if not redis.acl_check_cmd(...) then
    error({ err = 'NORIGHT this user may not ' .. (...) })
  end
end

-- Returns the epoch, the top and the server's id. The stream begins the epoch `fresh` if it may be
-- incomplete: another server wrote it last, its hash is missing, its last entry is not the top of
-- the hash, or its top is below `seen`, the caller's position in the stream as 'epoch:offset' or
-- ''. `known` is the server's id that the caller knows, or '' if it knows none.
local function position(known, fresh, lifetime, seen)
  local meta = of_type(redis.pcall('HMGET', KEYS[2], 'epoch', 'top', 'server'))
  if not meta then
    redis.call('DEL', KEYS[2])
    meta = {}
  end
  local epoch, top, server = meta[1], tonumber(meta[2] or ''), meta[3]
  if known == '' or (epoch and server ~= known) then
    -- The id that the caller knows may be outdated, so the server is asked for its current id.
    local info = redis.pcall('INFO', 'replication')
    known = type(info) == 'string' and string.match(info, 'master_replid:(%w+)') or known
  end
  local is_whole = epoch and top and server == known
  if is_whole and string.sub(seen, 1, #epoch + 1) == epoch .. ':' then
    -- A top below the caller's position means that Redis has loaded older data.
    is_whole = tonumber(string.sub(seen, #epoch + 2)) <= top
  end
  if is_whole then
    local last = of_type(redis.pcall('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1))
    is_whole = last and (not last[1] or last[1][1] == string.format('%.0f-0', top))
  end
  if not is_whole then
    epoch, top = fresh, 0
    demand('HSET', KEYS[2], 'top', 0)
    demand('PEXPIRE', KEYS[2], lifetime)
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[2], 'epoch', epoch, 'top', 0, 'server', known)
    redis.call('PEXPIRE', KEYS[2], lifetime)
  end
  return epoch, top, known
end
