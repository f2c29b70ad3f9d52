
-- ARGV: the server's id and a fresh epoch; the lifetime of the position in milliseconds; the
-- caller's position in the stream; `after`, `before` or `top`. Two arguments follow `after` or
-- `before`: an offset, and the maximum number of publications.
--
-- Answers with the server's id, the epoch, the top, and the entries.
local epoch, top, server = position(ARGV[1], ARGV[2], ARGV[3], ARGV[4])
local entries = {}
if ARGV[5] == 'after' then
  entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[6] .. '-0', '+', 'COUNT', ARGV[7])
elseif ARGV[5] == 'before' then
  entries = redis.call('XREVRANGE', KEYS[1], '(' .. ARGV[6] .. '-0', '-', 'COUNT', ARGV[7])
end
return { server, epoch, string.format('%.0f', top), entries }
