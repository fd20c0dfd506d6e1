-- Takes or renews the lease of a record.
-- KEYS  lease, token counter
-- ARGV  writer, who that is (for people), milliseconds
-- Returns {token}, or {0, who has it}.
local lease = redis.call('HMGET', KEYS[1], 'id', 'token', 'by')
if lease[1] and lease[1] ~= ARGV[1] then
	return {'0', lease[3] or ''}
end
if not lease[1] then
	-- Higher than any before, also where the counter has been lost.
	local now = redis.call('TIME')
	local token = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, now[1] * 1000000 + now[2])
	lease[2] = string.format('%.0f', token)
	redis.call('SET', KEYS[2], lease[2])
	redis.call('HSET', KEYS[1], 'id', ARGV[1], 'token', lease[2], 'by', ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {lease[2]}
