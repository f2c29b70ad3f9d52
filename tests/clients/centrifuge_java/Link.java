import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.HashSet;
import java.util.Set;

/** A TCP proxy of the test's own: what the SDK sees when a network fails. */
final class Link {
    private final String host;
    private final int port;
    private final ServerSocket listener;
    private final Set<Socket> ends = new HashSet<>();
    private boolean isClosed;

    /** In front of {@code host:port}. */
    Link(String target) throws IOException {
        int colon = target.lastIndexOf(':');
        host = target.substring(0, colon);
        port = Integer.parseInt(target.substring(colon + 1));
        listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        daemon(() -> {
            for (;;) {
                carry(listener.accept());
            }
        });
    }

    String address() {
        return "127.0.0.1:" + listener.getLocalPort();
    }

    private void carry(Socket client) throws IOException {
        Socket server = new Socket(host, port);
        if (admit(client, server)) {
            pump(client, server);
            pump(server, client);
        }
    }

    /** Notes both ends of a new connection, or closes them. */
    private synchronized boolean admit(Socket... both) throws IOException {
        for (Socket end : both) {
            if (isClosed) {
                end.close();
            } else {
                ends.add(end);
            }
        }
        return !isClosed;
    }

    private void pump(Socket from, Socket to) {
        daemon(() -> {
            try (from; to) {
                from.getInputStream().transferTo(to.getOutputStream());
            }
        });
    }

    private interface Work {
        void run() throws IOException;
    }

    private static void daemon(Work work) {
        Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (IOException end) {
                // The other side sees it as well.
            }
        });
        thread.setDaemon(true);
        thread.start();
    }

    /** Ends what is open, without a word to either side. */
    synchronized void cut() throws IOException {
        for (Socket end : ends) {
            end.close();
        }
        ends.clear();
    }

    /** From now on nothing gets through. */
    synchronized void close() throws IOException {
        isClosed = true;
        cut();
    }

    /** From now on everything gets through. */
    synchronized void open() {
        isClosed = false;
    }
}
