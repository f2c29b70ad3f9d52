#!lua
-- KEYS[1] is a stream: an entry for each publication, whose id is its offset. KEYS[2] is its hash: the epoch, the top
-- offset, and the replication id of the server that wrote it last.

-- The reply, or nil if the key is of another type. Any other error, such as a right that is missing, ends the script:
-- it says nothing of the stream.
local function of_type(reply)
  if not reply.err then
    return reply
  end
  if not string.find(reply.err, '^WRONGTYPE') then
    error(reply)
  end
end

-- Fails unless the user may send this command. Redis does not take back what a script did before a command that the
-- user has no right to, so rights come first.
local function demand(...)
  if not redis.acl_check_cmd(...) then
    error({ err = 'NORIGHT this user may not ' .. (...) })
  end
end

-- The epoch, the top and the server's id. A stream that this server may not have whole begins the epoch `fresh`:
-- another server wrote it last, its hash is gone, or its entries are not those that the hash tells of. `known` is the
-- server's id as the caller knows it, '' if it does not.
local function position(known, fresh, lifetime)
  local meta = of_type(redis.pcall('HMGET', KEYS[2], 'epoch', 'top', 'server'))
  if not meta then
    redis.call('DEL', KEYS[2])
    meta = {}
  end
  local epoch, top, server = meta[1], tonumber(meta[2] or ''), meta[3]
  if known == '' or (epoch and server ~= known) then
    -- The caller may know an earlier server, and only this one can say who it is.
    local info = redis.pcall('INFO', 'replication')
    known = type(info) == 'string' and string.match(info, 'master_replid:(%w+)') or known
  end
  local is_whole = epoch and top and server == known
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
