import com.google.gson.Gson;
import io.github.centrifugal.centrifuge.ReplyError;
import io.github.centrifugal.centrifuge.ResultCallback;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** What the scenarios share: tokens, payloads, and waits with a deadline. */
final class Support {
    /** Longest wait for anything. */
    private static final long PATIENCE_MS = 20_000;

    private static final long LOOK_EVERY_MS = 10;

    private static final BufferedReader ANSWERS = new BufferedReader(new InputStreamReader(System.in));

    static final Gson GSON = new Gson();

    private Support() {}

    /** The payload of the most messages. */
    static final class Numbered {
        int n;

        Numbered(int n) {
            this.n = n;
        }
    }

    static void check(boolean holds, Object... found) {
        if (!holds) {
            throw new AssertionError(GSON.toJson(found));
        }
    }

    static void checkEqual(Object found, Object expected) {
        check(found.equals(expected), found, "instead of", expected);
    }

    static void done(String step) {
        System.out.println(step);
        System.out.flush();
    }

    /** Asks the test for something, and waits until it is done. */
    static void ask(String what) throws IOException {
        done(what);
        check(ANSWERS.readLine() != null, "nobody answers: " + what);
    }

    /** Waits until it holds; fails with what was waited for. */
    static void until(String what, BooleanSupplier holds) throws InterruptedException {
        long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(PATIENCE_MS);
        while (!holds.getAsBoolean()) {
            check(System.nanoTime() < deadline, "waited in vain for " + what);
            Thread.sleep(LOOK_EVERY_MS);
        }
    }

    /** The first event, once it is there. */
    static <T> T first(String what, List<T> events) throws InterruptedException {
        until(what, () -> !events.isEmpty());
        return events.get(0);
    }

    /** The result of a command. */
    static <T> T within(Consumer<ResultCallback<T>> command) throws Exception {
        CompletableFuture<T> answer = new CompletableFuture<>();
        command.accept((error, result) -> {
            if (error == null) {
                answer.complete(result);
            } else {
                answer.completeExceptionally(error);
            }
        });
        try {
            return answer.get(PATIENCE_MS, TimeUnit.MILLISECONDS);
        } catch (TimeoutException late) {
            throw new AssertionError("waited in vain for an answer", late);
        }
    }

    /** The code of the error that a command is answered with. */
    static <T> int refusal(Consumer<ResultCallback<T>> command) throws Exception {
        try {
            throw new AssertionError("not refused: " + GSON.toJson(within(command)));
        } catch (ExecutionException failed) {
            check(failed.getCause() instanceof ReplyError, failed.getCause().toString());
            return ((ReplyError) failed.getCause()).getCode();
        }
    }

    /** Seconds since 1970, of a time so far from now. */
    static long inSeconds(long seconds) {
        return System.currentTimeMillis() / 1000 + seconds;
    }

    static String name(String prefix) {
        return prefix + ":" + UUID.randomUUID();
    }

    static byte[] payload(Object value) {
        return GSON.toJson(value).getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] data) {
        return new String(data, StandardCharsets.UTF_8);
    }

    static int number(byte[] data) {
        return GSON.fromJson(text(data), Numbered.class).n;
    }

    /** An HS256 token with these claims, issued a second ago, for an hour unless they say otherwise. */
    static String mint(String secret, Map<String, Object> claims) {
        Map<String, Object> all = new HashMap<>(Map.of("iat", inSeconds(-1), "exp", inSeconds(3600)));
        all.putAll(claims);
        String signed = encode(payload(Map.of("alg", "HS256", "typ", "JWT"))) + "." + encode(payload(all));
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(secret.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
            return signed + "." + encode(mac.doFinal(signed.getBytes(StandardCharsets.UTF_8)));
        } catch (GeneralSecurityException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    private static String encode(byte[] bytes) {
        return Base64.getUrlEncoder().withoutPadding().encodeToString(bytes);
    }
}
