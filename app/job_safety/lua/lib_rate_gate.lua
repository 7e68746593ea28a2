-- Ask whether a request fits under every limit. Takes nothing yet: another gate may still say no.
-- Uses lib_rate_used
-- Returns nil, or {why, ms until it fits} of the limit that takes longest.
local function rate_gate(rate, now)
  local worst
  for _, limit in ipairs(rate.limits) do
    local need = rate.need[limit.kind]
    if need > 0 then
      local _, ms = rate_used(limit, now, need, math.floor(limit.most * rate.percent / 100))
      if ms > 0 and (not worst or ms > worst.ms) then worst = {why = 'rate:' .. limit.kind, ms = ms} end
    end
  end
  return worst
end
