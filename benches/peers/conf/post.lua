wrk.method = "POST"
wrk.path = "/post"
wrk.body = string.rep("x", 16384)
wrk.headers["Content-Type"] = "application/octet-stream"
