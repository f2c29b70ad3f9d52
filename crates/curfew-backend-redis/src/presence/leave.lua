-- ARGV: the session, and the beginning of its entry; then PUBLISH and a pub/sub channel, where others are told of
-- entries that say so. In a cluster KEYS[3], a hash, takes such an entry instead, by its beginning, until its node or
-- another has told of it; ARGV[3] is the lifetime of that hash in milliseconds.
--
-- Answers with the entry of the session, which is removed, if it has this beginning; else with what KEYS[3] has.
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry or string.sub(entry, 1, #ARGV[2]) ~= ARGV[2] then
  if not KEYS[3] then
    return false
  end
  if entry then
    -- The session is back, and others were told of that.
    redis.call('HDEL', KEYS[3], ARGV[2])
  end
  return redis.call('HGET', KEYS[3], ARGV[2])
end
local stored = cjson.decode(entry)
redis.call('HDEL', KEYS[1], ARGV[1])
if redis.call('HINCRBY', KEYS[2], stored.user, -1) <= 0 then
  redis.call('HDEL', KEYS[2], stored.user)
end
if KEYS[3] and stored.told then
  redis.call('HSET', KEYS[3], ARGV[2], entry)
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
elseif stored.told then
  local message = '{"v":3,"change":"leave","session":"' .. ARGV[1] .. '","entry":' .. entry .. '}'
  redis.call(ARGV[3], ARGV[4], message)
end
return entry
