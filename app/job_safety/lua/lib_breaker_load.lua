-- Read a circuit and let pass what is over by now: a person's override, and the time that it stays open.
-- Uses lib_breaker_fields lib_breaker_move
-- Returns its fields, see lib_breaker_fields; read once per script, so whoever writes one to Redis changes it in them.
local function breaker_load(circuit, now)
  local fields = circuit.fields or breaker_fields(circuit.state)
  circuit.fields = fields
  if fields.override ~= '' and now >= fields.override_until then
    local why = 'the override ' .. fields.override .. ' of ' .. fields.override_by .. ' is over'
    breaker_move(circuit, fields, now, 'override_expired', fields.state, why, 'timer')
  end
  if fields.state == 'open' and now >= fields['until'] then
    breaker_move(circuit, fields, now, 'circuit_half_open', 'half_open', 'it was open long enough', 'timer')
  end
  return fields
end
