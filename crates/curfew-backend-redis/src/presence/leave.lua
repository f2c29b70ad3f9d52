-- ARGV: the session, and the beginning of its entry; then PUBLISH and a pub/sub channel, on which
-- the leave is announced if the entry demands it. In a cluster, the script cannot announce the
-- leave. It stores such an entry in the hash KEYS[3], by its beginning, until a node has announced
-- the leave. ARGV[3] is then the lifetime of KEYS[3] in milliseconds.
--
-- Removes the entry of the session if it has this beginning, and answers with it. Otherwise answers
-- with the entry that KEYS[3] holds under this beginning.
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry or string.sub(entry, 1, #ARGV[2]) ~= ARGV[2] then
  if not KEYS[3] then
    return false
  end
  if entry then
    -- The session is back with a newer entry, so this leave is not announced any more.
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
