-- Keep the queues of an account for one journal: two would take each other's keys, and know nothing of them.
-- A script because "whose is it?" and "mine for a while" must be one step. It writes each time, on purpose: a Redis
-- that is full, or a replica, answers questions as if nothing were wrong.
-- KEYS[1] string claim: whose queues these are, with a TTL
-- ARGV[1] who we are   ARGV[2] for how many ms
-- Returns "" if they are ours now, else whose they are.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return owner end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ''
