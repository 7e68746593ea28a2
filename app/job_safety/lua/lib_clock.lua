-- The server's clock, in ms: the one that everybody who shares this Redis agrees on. A script is one moment by it.
local moment
local function now_ms()
  if not moment then
    local time = redis.call('TIME')
    moment = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return moment
end
