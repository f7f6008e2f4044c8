import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.NetworkInterface;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.stream.IntStream;

/** Does what Java programs do: a server and its clients, threads, processes, files. */
class Main {
    public static void main(String[] arguments) throws Exception {
        var runtime = Runtime.getRuntime();
        var server = HttpServer.create(new InetSocketAddress(InetAddress.getByName("127.0.0.1"), 0), 0);
        var threads = Executors.newFixedThreadPool(8);
        server.setExecutor(threads);
        server.createContext("/", exchange -> {
            var answer = ("hello " + exchange.getRequestURI().getPath()).getBytes();
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.start();
        var client = HttpClient.newHttpClient();
        var place = "http://127.0.0.1:" + server.getAddress().getPort() + "/";
        var answers = IntStream.range(0, 8).mapToObj(number -> {
            var request = HttpRequest.newBuilder(URI.create(place + number)).build();
            return client.sendAsync(request, BodyHandlers.ofString());
        }).toList();
        System.out.println(answers.stream().map(answer -> answer.join().body()).toList());
        server.stop(0);
        threads.shutdown();
        System.out.println(runtime.availableProcessors() + " processors, " + runtime.maxMemory() + " bytes");
        var process = new ProcessBuilder("sh", "-c", "echo a process").redirectErrorStream(true).start();
        System.out.print(new String(process.getInputStream().readAllBytes()));
        System.out.println(process.waitFor());
        System.out.println(System.getProperty("user.name"));
        System.out.println(InetAddress.getByName("localhost").isLoopbackAddress());
        System.out.println(NetworkInterface.networkInterfaces().anyMatch(one -> one.getName().equals("lo")));
        var file = Files.createTempFile("java", "");
        System.out.println(Files.getOwner(Files.writeString(file, "x")));
        System.out.println(CompletableFuture.supplyAsync(() -> "asynchronous").get());
    }
}
