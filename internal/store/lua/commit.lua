-- Makes one step of a record.
-- KEYS  lease, head, fields, versions, names of the kind, a log each
-- ARGV  1 writer, 2 token, 3 version, 4 taken: the stamp of the new state
--       5 '1' to replace whatever is there, else 6 writer, 7 token, 8 version:
--         the stamp of what must be there, or empty ones
--       9 name of the record, 10 channel, 11 most entries of a log, 12 the oldest
--         time of an entry, 13 seconds after which a log that rests is forgotten
--       number of fields, then name and value of each
--       number of fields to remove, then the names
--       number of log entries, then the number of its log and the text of each
-- Returns 'done'; 'lost' or 'moved' if nothing was changed.
local lease = redis.call('HMGET', KEYS[1], 'id', 'token')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then
	return 'lost'
end
local head = redis.call('HMGET', KEYS[2], 'id', 'token', 'version')
if ARGV[5] ~= '1' and ((head[1] or '') ~= ARGV[6] or (head[2] or '') ~= ARGV[7] or (head[3] or '') ~= ARGV[8]) then
	return 'moved'
end
-- Whatever can fail does so before the first change: a script that fails later
-- leaves half of its work.
redis.call('HLEN', KEYS[3])
redis.call('ZCARD', KEYS[4])
redis.call('SCARD', KEYS[5])
for i = 6, #KEYS do
	redis.call('LLEN', KEYS[i])
end

if ARGV[5] == '1' then
	redis.call('DEL', KEYS[3], KEYS[4])
end
redis.call('HSET', KEYS[2], 'id', ARGV[1], 'token', ARGV[2], 'version', ARGV[3], 'taken', ARGV[4])
redis.call('SADD', KEYS[5], ARGV[9])
local at = 14
local changed = 0
for _ = 1, tonumber(ARGV[at]) do
	redis.call('HSET', KEYS[3], ARGV[at + 1], ARGV[at + 2])
	redis.call('ZADD', KEYS[4], ARGV[3], ARGV[at + 1])
	at = at + 2
	changed = changed + 1
end
at = at + 1
for _ = 1, tonumber(ARGV[at]) do
	redis.call('HDEL', KEYS[3], ARGV[at + 1])
	redis.call('ZREM', KEYS[4], ARGV[at + 1])
	at = at + 1
	changed = changed + 1
end
at = at + 1
for _ = 1, tonumber(ARGV[at]) do
	local log = KEYS[5 + tonumber(ARGV[at + 1])]
	redis.call('LPUSH', log, ARGV[at + 2])
	redis.call('LTRIM', log, 0, ARGV[11] - 1)
	local last = redis.call('LINDEX', log, -1)
	while last and string.sub(last, 1, 9) == '{"time":"' and string.sub(last, 10, 28) < ARGV[12] do
		redis.call('RPOP', log)
		last = redis.call('LINDEX', log, -1)
	end
	redis.call('EXPIRE', log, ARGV[13])
	at = at + 2
end
if changed > 0 then
	redis.call('PUBLISH', ARGV[10], ARGV[3])
end
return 'done'
