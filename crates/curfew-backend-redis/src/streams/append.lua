
-- KEYS[3] is the pub/sub channel. Each further key is an idempotency key.
--
-- ARGV: a deadline in microseconds since 1970; the server's id and a fresh epoch; the lifetimes of
-- the position, of the publications and of idempotency keys, in milliseconds; the number of
-- publications to keep; PUBLISH or SPUBLISH; the caller's position in the stream. Two arguments
-- follow for each publication: the index of its key in KEYS, or 0, and its envelope without the
-- beginning.
--
-- Answers with the server's id, the epoch, and the offset of each publication. If an earlier
-- publication had the same key, its epoch and offset are answered instead.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[1]) then
  return redis.error_reply('FENCED the lease of the node that has sent this is over')
end
-- The rights to these commands are checked before the first write. The other commands are not
-- checked by `demand`, which costs more: they run in a harmless form before the first write.
demand(ARGV[8], KEYS[3], '')
demand('XADD', KEYS[1], '1-0', 'e', '')
if KEYS[4] then
  demand('SET', KEYS[4], '', 'PX', ARGV[6])
end
local at = string.format('%d', math.floor(now / 1000))
local epoch, top, server = position(ARGV[2], ARGV[3], ARGV[4], ARGV[9])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
local before, answer = top, { server, epoch }
-- `new` holds the indexes in ARGV of the new publications; `positions` holds the positions of their
-- idempotency keys.
local new, positions = {}, {}
for i = 10, #ARGV, 2 do
  local key = KEYS[tonumber(ARGV[i])]
  local known = key and (positions[key] or redis.call('GET', key))
  -- A position of an earlier epoch does not count, because its publication may be lost.
  if known and string.sub(known, 1, #epoch + 1) == epoch .. ':' then
    answer[#answer + 1] = known
  else
    top = top + 1
    answer[#answer + 1] = top
    new[#new + 1] = i
    if key then
      positions[key] = epoch .. ':' .. string.format('%d', top)
    end
  end
end
-- The top is written once, before the entries. If the last entry is then missing, the stream is
-- incomplete, and begins a new epoch.
redis.call('HSET', KEYS[2], 'top', string.format('%d', top))
local begin = '{"v":2,"epoch":"' .. epoch .. '","at":' .. at .. ',"offset":'
-- These are locals, because Lua looks up a global by name at each use and one call carries hundreds
-- of publications.
local call, format, args = redis.call, string.format, ARGV
local stream, channel, size, publish = KEYS[1], KEYS[3], ARGV[7], ARGV[8]
for n, i in ipairs(new) do
  local offset = format('%d', before + n)
  local envelope = begin .. offset .. args[i + 1]
  -- Only the last append trims the stream, because a trim costs as much as an append.
  if n < #new then
    call('XADD', stream, offset, 'e', envelope)
  else
    call('XADD', stream, 'MAXLEN', size, offset, 'e', envelope)
  end
  call(publish, channel, envelope)
end
for key, place in pairs(positions) do
  redis.call('SET', key, place, 'PX', ARGV[6])
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return answer
