-- Reads what has changed of a record. Writes nothing, so that a replica can run
-- it.
-- KEYS  head, fields, versions
-- ARGV  writer, token, version: the stamp of what the reader has, or empty ones
-- Returns {} if there is no record, else
--   {writer, token, version, taken, number of fields, '1' if all of them follow,
--    name, value, …}
local head = redis.call('HMGET', KEYS[1], 'id', 'token', 'version', 'taken')
if not head[1] then
	return {}
end
local out = {head[1], head[2], head[3], head[4], tostring(redis.call('HLEN', KEYS[2])), '0'}
local had = head[1] == ARGV[1] and head[2] == ARGV[2]
if had and head[3] == ARGV[3] then
	return out
end
if not had or (tonumber(head[3]) or 0) < tonumber(ARGV[3]) then
	-- Another writer's: what it began with need not be what the reader has.
	out[6] = '1'
	local all = redis.call('HGETALL', KEYS[2])
	for i = 1, #all do
		out[6 + i] = all[i]
	end
	return out
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[3], '+inf')) do
	out[#out + 1] = name
	out[#out + 1] = redis.call('HGET', KEYS[2], name)
end
return out
