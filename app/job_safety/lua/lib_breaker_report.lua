-- Take in what became of a call that was admitted under `generation`; older generations count for nothing.
-- token: gives its permit back   result: "none" (says nothing), or the weight of the failure, 0 for a success
-- Uses lib_breaker_load lib_breaker_count
local function breaker_report(circuit, now, token, generation, member, result)
  redis.call('ZREM', circuit.permits, token)
  local weight = tonumber(result)
  if not weight then return end
  local fields = breaker_load(circuit, now)
  if fields.generation ~= tonumber(generation) or fields.state == 'open' then return end
  if fields.state == 'closed' then return breaker_count(circuit, fields, now, now, member, weight) end
  if weight > 0 then
    return breaker_move(circuit, fields, now, 'circuit_open', 'open', 'a probe failed', 'breaker')
  end
  if fields.successes + 1 >= circuit.probes then
    return breaker_move(circuit, fields, now, 'circuit_close', 'closed', circuit.probes .. ' probes succeeded', 'breaker')
  end
  redis.call('HSET', circuit.state, 'successes', fields.successes + 1)
end
