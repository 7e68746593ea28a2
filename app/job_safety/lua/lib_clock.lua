-- The server's clock, in ms: the one that everybody who shares this Redis agrees on.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
