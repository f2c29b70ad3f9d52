#!lua flags=no-writes
-- ARGV: the names of a stream, its hash, an idempotency key, a channel's presence and a pub/sub
-- channel; PUBLISH or SPUBLISH. The names are not in KEYS, so that any server of a cluster can
-- answer.
--
-- Answers with the commands of streams and presence that this user may not send.
local stream, meta, key, presence, channel, publish = unpack(ARGV)
local missing = {}
for _, command in ipairs({
  { 'EVAL', 'return 1', '0' },
  { 'INFO', 'replication' },
  { 'HMGET', meta, 'epoch' },
  { 'HSET', meta, 'top', '0' },
  { 'DEL', stream },
  { 'GET', key },
  { 'SET', key, '', 'PX', '1' },
  { 'PEXPIRE', stream, '1' },
  { 'XADD', stream, '1-0', 'e', '' },
  { 'XRANGE', stream, '-', '+' },
  { 'XREVRANGE', stream, '+', '-' },
  { 'HGET', presence, '' },
  { 'HDEL', presence, '' },
  { 'HLEN', presence },
  { 'HINCRBY', presence, '', '1' },
  { 'HRANDFIELD', presence, '1', 'WITHVALUES' },
  { 'EXISTS', presence },
  { 'PEXPIREAT', presence, '1' },
  { publish, channel, '' },
  -- Only the sweep of a cluster needs SCAN.
  publish == 'SPUBLISH' and { 'SCAN', '0' } or nil,
  publish == 'SPUBLISH' and { 'HSCAN', presence, '0' } or nil,
}) do
  if not redis.acl_check_cmd(unpack(command)) then
    missing[#missing + 1] = command[1]
  end
end
return missing
