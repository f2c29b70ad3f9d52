#!lua
-- KEYS[1] is a stream, KEYS[2] its pub/sub channel. ARGV: the notice to nodes; PUBLISH or SPUBLISH.
--
-- Nodes are told in the step that deletes, on the link that brings publications. The right to tell them is tried
-- before anything is deleted.
redis.call(ARGV[2], KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
