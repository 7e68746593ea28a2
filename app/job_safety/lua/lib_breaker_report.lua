-- Take in what became of a call that was admitted under `generation`; older generations count for nothing.
-- token: gives its permit back   result: "none" (says nothing), or the weight of the failure, 0 for a success
-- Uses lib_breaker_load lib_breaker_count
local function breaker_report(circuit, now, token, generation, member, result)
  local weight = tonumber(result)
  if not weight then return redis.call('ZREM', circuit.permits, token) end
  local fields = breaker_load(circuit, now)
  local counts = fields.generation == tonumber(generation)
  -- Closed, it has no permits: whatever moves a circuit takes them all.
  if fields.state == 'closed' then return counts and breaker_count(circuit, fields, now, now, member, weight) end
  redis.call('ZREM', circuit.permits, token)
  if not counts or fields.state == 'open' then return end
  if weight > 0 then
    return breaker_move(circuit, fields, now, 'circuit_open', 'open', 'a probe failed', 'breaker')
  end
  if fields.successes + 1 >= circuit.probes then
    return breaker_move(circuit, fields, now, 'circuit_close', 'closed', circuit.probes .. ' probes succeeded', 'breaker')
  end
  fields.successes = fields.successes + 1
  redis.call('HSET', circuit.state, 'successes', fields.successes)
end
