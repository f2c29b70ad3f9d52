-- ARGV: the session, its entry and its user; the end of its access in milliseconds since 1970; a
-- deadline in microseconds since 1970. If the join is announced, then PUBLISH, a pub/sub channel
-- and the join message follow.
--
-- Returns 1 if the session had no entry, else 0.
local time = redis.call('TIME')
if time[1] * 1000000 + time[2] > tonumber(ARGV[5]) then
  return redis.error_reply('FENCED the node that has sent this may be dead')
end
local before = redis.call('HGET', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then
  -- The hash of sessions does not exist, so the hash of users may have outdated counts.
  redis.call('DEL', KEYS[2])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if not before then
  redis.call('HINCRBY', KEYS[2], ARGV[3], 1)
end
for _, key in ipairs(KEYS) do
  -- The key expires when its last session ends: NX sets the first expiry, GT only extends it.
  redis.call('PEXPIREAT', key, ARGV[4], 'NX')
  redis.call('PEXPIREAT', key, ARGV[4], 'GT')
end
if before then
  return 0
end
if ARGV[6] then
  redis.call(ARGV[6], ARGV[7], ARGV[8])
end
return 1
