-- A body of {{bytes}} bytes; in chunks of 16 KiB, and without a length, where {{chunked}} is true.
wrk.method = "POST"
wrk.path = "/post"
wrk.headers["Content-Type"] = "application/octet-stream"
if {{chunked}} then
  wrk.headers["Transfer-Encoding"] = "chunked"
  local chunk = "4000\r\n" .. string.rep("x", 16384) .. "\r\n"
  local whole
  function init()
    whole = wrk.format() .. string.rep(chunk, {{bytes}} / 16384) .. "0\r\n\r\n"
  end
  function request() return whole end
else
  wrk.body = string.rep("x", {{bytes}})
end
