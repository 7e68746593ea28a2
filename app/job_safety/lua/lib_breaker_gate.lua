-- Ask a circuit whether a call may pass. Takes no permit yet: another gate may still say no.
-- Uses lib_breaker_load
-- Returns {generation, permit = whether passing takes one} or {generation = -1, why, ms until it may change, or -1}.
-- A result that is reported under generation -1 counts for nothing: that call was no probe.
local function breaker_gate(circuit, now)
  local fields = breaker_load(circuit, now)
  if fields.state == 'closed' then return {generation = fields.generation} end
  local closed = {generation = -1, why = 'breaker:' .. circuit.job, ms = -1}
  if fields.state == 'open' then
    closed.ms = fields['until'] - now
    return closed
  end
  redis.call('ZREMRANGEBYSCORE', circuit.permits, '-inf', now)
  if redis.call('ZCARD', circuit.permits) + fields.successes >= circuit.probes then return closed end
  return {generation = fields.generation, permit = true}
end
