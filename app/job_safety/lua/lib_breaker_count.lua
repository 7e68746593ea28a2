-- Count one call of a closed circuit, once however often it is told, and judge the circuit if the call failed.
-- member: names the call, unique for ever   at: when it ended, server ms   weight: 0 for a success
-- Uses lib_breaker_judge
local function breaker_count(circuit, fields, now, at, member, weight)
  if redis.call('ZADD', circuit.window, 'NX', at, member .. ':' .. weight) == 0 then return end
  redis.call('ZREMRANGEBYSCORE', circuit.window, '-inf', now - circuit.window_ms)
  redis.call('ZREMRANGEBYRANK', circuit.window, 0, -circuit.window_calls - 1)
  if weight == 0 and fields.consecutive == 0 then return end
  fields.consecutive = weight > 0 and fields.consecutive + weight or 0
  redis.call('HSET', circuit.state, 'consecutive', fields.consecutive)
  if weight > 0 then breaker_judge(circuit, fields, now) end
end
