-- ARGV: the session, and the beginning of its entry. Without a cluster, PUBLISH and a pub/sub
-- channel follow; the script publishes the leave if the entry says that it is announced. In a
-- cluster, KEYS[3] is a hash that stores such an entry under its beginning, until a node has
-- published the leave. ARGV[3] is then the lifetime of that hash in milliseconds.
--
-- Returns the session's entry, which is removed, if it has this beginning; else the value that
-- KEYS[3] stores under it.
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry or string.sub(entry, 1, #ARGV[2]) ~= ARGV[2] then
  if not KEYS[3] then
    return false
  end
  if entry then
    -- The session is back, and its new join was announced, so its old leave must not follow.
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
