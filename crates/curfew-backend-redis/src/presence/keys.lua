-- KEYS[1] is a hash of sessions with their entries. KEYS[2] is a hash of users with the number of
-- their sessions. KEYS[3] may be absent, and is a hash too.
for _, key in ipairs(KEYS) do
  local length = redis.pcall('HLEN', key)
  if type(length) == 'table' then
    if not string.find(length.err, '^WRONGTYPE') then
      return length
    end
    -- A key of another type was not written by Curfew, so it is removed.
    redis.call('DEL', key)
  end
end
