-- Gives a lease back that is still ours.
-- KEYS  lease
-- ARGV  writer, token
local lease = redis.call('HMGET', KEYS[1], 'id', 'token')
if lease[1] == ARGV[1] and lease[2] == ARGV[2] then
	redis.call('DEL', KEYS[1])
end
return {}
