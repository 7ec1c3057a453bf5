import java.io.PrintWriter;

/** A suite that writes JUnit XML: `javac --release 8 -g:none Suite.java`, and a jar with `Main-Class: Suite`. */
public class Suite {
    public static void main(String[] words) throws Exception {
        String host = System.getenv("BUILDKIT_HOST");
        if (host == null || new ProcessBuilder("buildctl", "debug", "workers").inheritIO().start().waitFor() != 0) {
            System.exit(1);
        }
        try (PrintWriter out = new PrintWriter(System.getenv("XML_OUTPUT_FILE"))) {
            out.print("<testsuite><testcase classname='Suite' name='connects'/>");
            out.print("<testcase classname='Suite' name='" + words[0] + "'><skipped message='not here'/></testcase></testsuite>");
        }
    }
}
