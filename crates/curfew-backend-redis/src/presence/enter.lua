-- ARGV: the session, its entry and its user; the end of the session's access in milliseconds since
-- 1970; then PUBLISH, a pub/sub channel and the message about the new entry. The last three are
-- absent if no message is to be sent.
--
-- Answers with 1 if the session had no entry, else with 0.
local before = redis.call('HGET', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then
  -- The hash of sessions is gone, so the hash of users may have outdated counts.
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
if ARGV[5] then
  redis.call(ARGV[5], ARGV[6], ARGV[7])
end
return 1
