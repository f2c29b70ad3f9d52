
-- KEYS[3] is the pub/sub channel, each further key an idempotency key. ARGV: a deadline in microseconds since 1970;
-- the server's id and a fresh epoch; lifetimes in milliseconds of the position, of the publications and of idempotency
-- keys; how many publications are kept; PUBLISH or SPUBLISH. Then for each publication the place of its key in KEYS, or
-- 0, and its envelope without the beginning.
--
-- Answers with the server's id, the epoch, and for each publication its offset, or the epoch and offset of an earlier
-- one with the same key.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[1]) then
  return redis.error_reply('FENCED the lease of the node that has sent this is over')
end
-- Tried in a form that does no harm, or asked for, which costs more.
demand(ARGV[8], KEYS[3], '')
demand('XADD', KEYS[1], '1-0', 'e', '')
if KEYS[4] then
  demand('SET', KEYS[4], '', 'PX', ARGV[6])
end
local at = string.format('%d', math.floor(now / 1000))
local epoch, top, server = position(ARGV[2], ARGV[3], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
local before, answer = top, { server, epoch }
-- The places in ARGV of publications that are new, and the positions of their keys.
local new, positions = {}, {}
for i = 9, #ARGV, 2 do
  local key = KEYS[tonumber(ARGV[i])]
  local known = key and (positions[key] or redis.call('GET', key))
  -- What an epoch that is over was given may be lost.
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
-- Once, and before the entries: a stream without the last of them is not whole, and begins another epoch.
redis.call('HSET', KEYS[2], 'top', string.format('%d', top))
local begin = '{"v":2,"epoch":"' .. epoch .. '","at":' .. at .. ',"offset":'
-- A global is looked up by name each time, and hundreds of publications come in one call.
local call, format, args = redis.call, string.format, ARGV
local stream, channel, size, publish = KEYS[1], KEYS[3], ARGV[7], ARGV[8]
for n, i in ipairs(new) do
  local offset = format('%d', before + n)
  local envelope = begin .. offset .. args[i + 1]
  -- With the last one alone: to trim for each costs as much as to append.
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
