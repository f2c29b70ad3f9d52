#!lua
-- KEYS[1] is a stream, KEYS[2] its pub/sub channel. ARGV: the notice to nodes; PUBLISH or SPUBLISH.
--
-- One script deletes and sends the notice, so nodes receive the notice in order with the
-- publications. The script publishes first. If the user has no right to publish, it thus deletes
-- nothing.
redis.call(ARGV[2], KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
