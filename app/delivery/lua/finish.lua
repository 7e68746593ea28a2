-- End a job that went well: settle its guards, hand over what follows from it, close it in RQ's books, begin the next.
-- A script because each of these is a round trip otherwise, and a worker that dies between two of them does work twice.
-- Uses lib_start lib_ask lib_forget lib_deliver app.job_safety:lib_guard
-- KEYS[1], KEYS[2] as lib_start says   KEYS[3] list rq:queue:{name}   KEYS[4] zset rq:finished:{queue}
-- KEYS[5] hash rq:job:{id}   KEYS[6] stream rq:results:{id}   KEYS[7] set rq:job:{id}:dependents
-- KEYS[8…] per guard what lib_guard says, then per queue what lib_deliver says, then what lib_ask says
-- ARGV[1…6] as lib_start says   [7] "1" to begin the next   [8] id   [9] its execution id   [10] seconds it took
-- ARGV[11] TTL of the job in seconds   [12] number of values of its result, then field, value, …
-- then the number of guards, per guard its number of keys and of values, and the values; then the same of queues; lib_ask
-- Returns {1 if jobs depend on this one, the next as begin.lua returns it or nil}
local a, k = 13 + ARGV[12], 8
local guards = tonumber(ARGV[a])
a = a + 1
for _ = 1, guards do
  settle_guard(k, a + 2)
  k, a = k + ARGV[a], a + 2 + ARGV[a + 1]
end
local queues, pushed = tonumber(ARGV[a]), nil
a = a + 1
for _ = 1, queues do pushed, k, a = deliver(k, a) end
forget(ARGV[8], ARGV[9])
redis.call('HSET', KEYS[5], 'status', 'finished', 'ended_at', ARGV[1], 'last_heartbeat', ARGV[1])
redis.call('XADD', KEYS[6], 'MAXLEN', 10, '*', unpack(ARGV, 13, 12 + ARGV[12]))
for _, key in ipairs({KEYS[5], KEYS[6]}) do redis.call('EXPIRE', key, ARGV[11]) end
redis.call('ZADD', KEYS[4], ARGV[2] + ARGV[11], ARGV[8])
local jobs, seconds = unpack(redis.call('HMGET', KEYS[1], 'successful_job_count', 'total_working_time'))
local tally = {'successful_job_count', (jobs or 0) + 1,
               'total_working_time', string.format('%.6f', (seconds or 0) + ARGV[10])}
local is_next = ARGV[7] == '1' and redis.call('EXISTS', 'rq:suspended') == 0
local following = is_next and ask(k, a, start(KEYS[3], 1, tally))
if not following then
  redis.call('HDEL', KEYS[1], 'current_job', 'execution')
  redis.call('HSET', KEYS[1], 'state', 'idle', 'last_heartbeat', ARGV[1], unpack(tally))
end
return {redis.call('EXISTS', KEYS[7]), following}
