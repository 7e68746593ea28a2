-- Take in what the exchange says is used: what others spend on this address and account is in it, ours may not all be.
-- told: triples "weight|orders  window in ms  used", from the headers of an answer
-- Uses lib_rate_used lib_rate_add
local function rate_seen(rate, now, told)
  for kind, window, seen in string.gmatch(told, '(%a+) (%d+) (%d+)') do
    for _, limit in ipairs(rate.limits) do
      if limit.kind == kind and limit.window == tonumber(window) then
        local more = tonumber(seen) - rate_used(limit, now, 0, math.huge)
        if more > 0 then rate_add(limit, now, more) end
      end
    end
  end
end
