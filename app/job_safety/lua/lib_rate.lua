-- Name the limits that one request counts against.
-- first: index in KEYS of three: string limits as the exchange publishes them, hash used per address, hash per account
-- request: "mode percent weight orders" and then the limits that hold until the exchange's own are known, or ""
--   mode: off | observe | enforce   percent: how much of each limit this kind of request may use up
--   limits: triples "weight|orders|raw  window in ms  most"
-- Returns {mode, percent, need = how much by kind, limits = list of {kind, key, window, most}}, or nil: nothing counts.
--         Limits that a script names twice are the same tables, so that what was read of them is read once.
local limits_at = {}
local function rate_of(first, request)
  if (request or '') == '' then return nil end
  local mode, percent, weight, orders, known = string.match(request, '^(%a+) (%d+) (%d+) (%d+) ?(.*)$')
  if not mode then error('no request: ' .. request) end
  if mode == 'off' then return nil end
  local limits = limits_at[KEYS[first]]
  if not limits then
    limits = {}
    for kind, window, most in string.gmatch(redis.call('GET', KEYS[first]) or known, '(%a+) (%d+) (%d+)') do
      local key = KEYS[kind == 'orders' and first + 2 or first + 1]
      limits[#limits + 1] = {kind = kind, key = key, window = tonumber(window), most = tonumber(most)}
    end
    limits_at[KEYS[first]] = limits
  end
  local need = {weight = tonumber(weight), orders = tonumber(orders), raw = 1}
  return {mode = mode, percent = tonumber(percent), need = need, limits = limits}
end
