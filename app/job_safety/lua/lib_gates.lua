-- Pass the circuit and the limits of one request together: take a permit and count it only if both let it pass.
-- first: index in KEYS of the circuit's four keys, which the limits' three follow
-- Uses lib_clock lib_circuit lib_breaker_gate lib_rate lib_rate_gate lib_rate_add
-- Returns the block that counts, or one that a merely observing gate would have made, or nil: {why, ms, blocks}
--         and {generation, permit}, see lib_breaker_gate; it means nothing when blocked.
local function gates_pass(first, token, policy, request)
  local circuit, rate = circuit_of(first, policy), rate_of(first + 4, request)
  local pass, full, now = {generation = -1}, nil, (circuit or rate) and now_ms()
  if circuit then pass = breaker_gate(circuit, now) end
  if rate then full = rate_gate(rate, now) end
  local found
  if pass.why and circuit.mode ~= 'exempt' then
    found = {why = pass.why, ms = pass.ms, blocks = circuit.mode == 'enforce'}
  end
  if full and not (found and found.blocks) then
    found = {why = full.why, ms = full.ms, blocks = rate.mode == 'enforce'}
  end
  if found and found.blocks then return found, pass end
  if pass.permit then redis.call('ZADD', circuit.permits, now + circuit.lease_ms, token) end
  for _, limit in ipairs(rate and rate.limits or {}) do
    if rate.need[limit.kind] > 0 then rate_add(limit, now, rate.need[limit.kind]) end
  end
  return found, pass
end
