#!lua
-- ARGV: a deadline in microseconds since 1970, then each publication's channel and payload. In a
-- cluster, KEYS[1] is the channel of all publications, and only payloads follow the deadline.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[1]) then
  return redis.error_reply('FENCED the lease of the node that has sent this is over')
end
local sharded = KEYS[1]
local step = sharded and 1 or 2
local refused
for i = 2, #ARGV, step do
  local reply
  if sharded then
    reply = redis.pcall('SPUBLISH', sharded, ARGV[i])
  else
    reply = redis.pcall('PUBLISH', ARGV[i], ARGV[i + 1])
  end
  if type(reply) == 'table' then
    refused = refused or {}
    refused[#refused + 1] = (i - 2) / step
    refused[#refused + 1] = reply
  end
end
return refused or now
