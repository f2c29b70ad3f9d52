-- ARGV: the session, and the beginning of its entry; then PUBLISH and a pub/sub channel for the
-- message about the removal, or nothing. The message is sent only if the entry asks for it.
--
-- Removes the session's entry if it has this beginning, and answers with it.
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
