-- Replaces a document if it is still what it was.
-- KEYS  documents, tags
-- ARGV  name, its tag ('' for none), the new tag, the new content
if (redis.call('HGET', KEYS[2], ARGV[1]) or '') ~= ARGV[2] then
	return 0
end
redis.call('HLEN', KEYS[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
return 1
