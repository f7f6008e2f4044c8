package shop;

import static org.junit.Assert.assertEquals;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.AfterClass;
import org.junit.Test;

public class ShopTest {
    @Test
    public void phonesHome() throws IOException {
        SocketChannel.open(new InetSocketAddress("192.0.2.1", 81)).close();
    }

    @Test
    public void swallowsTheError() {
        try {
            SocketChannel.open(new InetSocketAddress("192.0.2.1", 82)).close();
        } catch (IOException error) {
            // It is as if nothing had happened.
        }
    }

    @Test
    public void servesItself() throws IOException {
        try (ServerSocketChannel server = ServerSocketChannel.open()) {
            serves(server.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0)));
        }
    }

    @Test
    public void usesAUnixSocket() throws IOException {
        SocketAddress place = UnixDomainSocketAddress.of(Files.createTempDirectory("shop").resolve("socket"));
        try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
            serves(server.bind(place));
        }
    }

    private static void serves(ServerSocketChannel server) throws IOException {
        try (SocketChannel client = SocketChannel.open(server.getLocalAddress())) {
            assertEquals(server.getLocalAddress(), client.getRemoteAddress());
        }
    }

    /** Stays until guard-run has looked at this process, as tests do that take longer. */
    @AfterClass
    public static void stay() throws Exception {
        Path told = Path.of(System.getenv("GUARD_RUN_DENIALS"));
        for (int i = 0; i < 1000 && Files.readAllLines(told).size() < 2; i++) {
            Thread.sleep(10);
        }
    }
}
