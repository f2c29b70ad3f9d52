#!lua
-- KEYS[1] is a stream, KEYS[2] its pub/sub channel. ARGV: the notice to nodes; PUBLISH or SPUBLISH.
--
-- The script that deletes also sends the notice, so nodes receive it in order with the
-- publications. It publishes first: if the user has no right to publish, nothing is deleted.
redis.call(ARGV[2], KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
