-- Count a failure that was found after the process that met it had died. Told twice it counts once.
-- A script because the look at the circuit and the count must be one step.
-- Uses lib_clock lib_circuit lib_breaker_load lib_breaker_count
-- KEYS[1…4] and ARGV[1]: see lib_circuit
-- ARGV[2] names the call   ARGV[3] weight   ARGV[4] how long ago it failed, in ms
-- Returns 1 if the circuit is closed and was so then, so that the failure belongs to it; otherwise 0.
local circuit, now = circuit_of(1, ARGV[1]), now_ms()
local fields = breaker_load(circuit, now)
local at = now - tonumber(ARGV[4])
if fields.state ~= 'closed' or at <= fields.changed_at or at <= now - circuit.window_ms then return 0 end
breaker_count(circuit, fields, now, at, ARGV[2], tonumber(ARGV[3]))
return 1
