"""A web server at ADDRESS, ports 80 and 443, for as long as a command runs. Arguments: ADDRESS, the files of its certificate and key, the
command and its arguments.
"""
import http.server, ssl, subprocess, sys, threading

PAGE = b"<h1>Example</h1>\n"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *words):
        pass


address, certificate, key, *command = sys.argv[1:]
plain, secret = (http.server.ThreadingHTTPServer((address, port), Handler) for port in (80, 443))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
secret.socket = context.wrap_socket(secret.socket, server_side=True)
for server in (plain, secret):
    threading.Thread(target=server.serve_forever, daemon=True).start()
sys.exit(subprocess.run(command).returncode)
