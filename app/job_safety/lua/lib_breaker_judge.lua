-- Open a closed circuit if its failures are too many in a row, or too large a part of the window.
-- A person's override to closed keeps it closed until it runs out; what was counted meanwhile is judged then.
-- Uses lib_breaker_move lib_breaker_sums
local function breaker_judge(circuit, fields, now)
  if fields.override == 'closed' then return end
  local calls, weight, failures = breaker_sums(circuit, now)
  local percent = math.floor(100 * weight / (weight + calls - failures))
  local why
  if fields.consecutive >= circuit.consecutive then
    why = 'failures in a row weigh ' .. fields.consecutive
  elseif calls >= circuit.min_calls and percent >= circuit.rate then
    why = failures .. ' of ' .. calls .. ' calls failed, by weight ' .. percent .. ' %'
  end
  if why then breaker_move(circuit, fields, now, 'circuit_open', 'open', why, 'breaker') end
end
