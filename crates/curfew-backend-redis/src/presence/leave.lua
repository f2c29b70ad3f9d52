-- ARGV: the session, and the beginning of its entry; then PUBLISH and a pub/sub channel for the
-- message about the removal. The last two are absent if no message is to be sent. The message is
-- sent only if the entry requests it.
--
-- Removes the session's entry if the entry has this beginning, and answers with the entry.
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry or string.sub(entry, 1, #ARGV[2]) ~= ARGV[2] then
  return false
end
local stored = cjson.decode(entry)
redis.call('HDEL', KEYS[1], ARGV[1])
if redis.call('HINCRBY', KEYS[2], stored.user, -1) <= 0 then
  redis.call('HDEL', KEYS[2], stored.user)
end
if ARGV[3] and stored.told then
  local message = '{"v":3,"change":"leave","session":"' .. ARGV[1] .. '","entry":' .. entry .. '}'
  redis.call(ARGV[3], ARGV[4], message)
end
return entry
