
-- ARGV: the server's id and a fresh epoch; the lifetime of the position in milliseconds; `after`,
-- `before` or `top`. Two arguments follow `after` or `before`: an offset, and the maximum number of
-- publications to read.
--
-- Answers with the server's id, the epoch, the top, and the entries.
local epoch, top, server = position(ARGV[1], ARGV[2], ARGV[3])
local entries = {}
if ARGV[4] == 'after' then
  entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[5] .. '-0', '+', 'COUNT', ARGV[6])
elseif ARGV[4] == 'before' then
  entries = redis.call('XREVRANGE', KEYS[1], '(' .. ARGV[5] .. '-0', '-', 'COUNT', ARGV[6])
end
return { server, epoch, string.format('%.0f', top), entries }
