-- Set a circuit by a person's word, or let pass what is over by now. There is one override at a time: the newest.
-- A script because state, override and the entry for the journal must be one step, by the server's clock.
-- Uses lib_clock lib_circuit lib_breaker_load
-- KEYS[1…4] and ARGV[1]: see lib_circuit
-- ARGV[2] open | closed | half_open (until ARGV[5] is over) | reset (closed, as new, without an override) | tick
-- ARGV[3] by whom   ARGV[4] why   ARGV[5] for how long, in ms
-- Returns {the state before, the state after}.
local circuit, now = circuit_of(1, ARGV[1]), now_ms()
local fields = breaker_load(circuit, now)
local from = fields.state
if ARGV[2] == 'reset' then
  breaker_move(circuit, fields, now, 'circuit_reset', 'closed', ARGV[4], ARGV[3])
elseif ARGV[2] ~= 'tick' then
  fields.override, fields.override_by, fields.override_reason = ARGV[2], ARGV[3], ARGV[4]
  fields.override_until = now + tonumber(ARGV[5])
  breaker_move(circuit, fields, now, 'override', ARGV[2], ARGV[4], ARGV[3])
end
return {from, fields.state}
