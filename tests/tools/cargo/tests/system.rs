//! What tests do: threads, processes, servers on loopback.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    thread,
};

#[test]
fn a_server_answers_many_clients() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        for _ in 0..8 {
            let mut stream = listener.accept().unwrap().0;
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            stream.write_all(line.to_uppercase().as_bytes()).unwrap();
        }
    });
    let clients = (0..8).map(|number| {
        thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            writeln!(stream, "hello {number}").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, format!("HELLO {number}\n"));
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.join().unwrap();
    }
    server.join().unwrap();
}

#[test]
fn processes_have_pipes_and_signals() {
    let hello = Command::new(env!("CARGO_BIN_EXE_hello")).arg("child").output().unwrap();
    assert!(hello.status.success() && hello.stdout.starts_with(b"hello child, says rustc "));
    let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    cat.stdin.take().unwrap().write_all(b"through a pipe").unwrap();
    assert_eq!(cat.wait_with_output().unwrap().stdout, b"through a pipe");
    let mut sleep = Command::new("sleep").arg("60").spawn().unwrap();
    sleep.kill().unwrap();
    assert_eq!(sleep.wait().unwrap().code(), None);
}

#[test]
fn there_are_socket_pairs() {
    let (mut one, mut other) = UnixStream::pair().unwrap();
    one.write_all(b"x").unwrap();
    let mut byte = [0];
    other.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}
