#[cfg(test)]
mod tests {
    use std::{io::{Read, Write}, net::{TcpListener, TcpStream}, os::unix::net::{UnixListener, UnixStream}, thread};

    #[test]
    fn phones_home() {
        TcpStream::connect("192.0.2.1:81").unwrap();
    }

    #[test]
    fn swallows_the_error() {
        let _ = TcpStream::connect("192.0.2.1:82");
    }

    #[test]
    fn serves_itself() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        thread::spawn(move || server.accept().unwrap().0.write_all(b"served"));
        let mut text = String::new();
        TcpStream::connect(address).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "served");
    }

    #[test]
    fn uses_a_unix_socket() {
        let path = std::env::temp_dir().join(format!("shop-{}", std::process::id()));
        let server = UnixListener::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(server);
        std::fs::remove_file(path).unwrap();
        stays_until_it_was_looked_at();
    }

    /// In one process with the others, as tests are that take longer.
    fn stays_until_it_was_looked_at() {
        let alone = std::env::args().any(|argument| argument == "--exact");
        let Some(denials) = std::env::var_os("GUARD_RUN_DENIALS").filter(|_| !alone) else { return };
        while std::fs::read_to_string(&denials).unwrap().lines().count() < 2 {
            thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
