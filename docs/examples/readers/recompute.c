/* Recompute one certified problem in doubles:  gcc -O2 -o recompute recompute.c -lm && ./recompute mdp_layered.json
   Configurable MDPs without horizon. Prints, per quantity, the digits that agree with the stored answer (16: all of a double). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define FOR(i, n) for (int i = 0; i < (n); i++)
static double *zeros(int n) { return calloc((size_t)n + 1, sizeof(double)); }
static void stop(const char *why) { fprintf(stderr, "%s\n", why); exit(2); }
/* A scanner for well-formed JSON: pointers to values, NULL where there is none (or null). */
static char *blank(char *p) { return p + strspn(p, " \t\r\n,:"); }
static char *skip(char *p) {
  if (*p == '"') { for (p++; *p != '"'; p++) if (*p == '\\') p++; return blank(p + 1); }
  if (*p != '{' && *p != '[') return blank(p + strcspn(p, ",]} \t\r\n"));
  for (p = blank(p + 1); *p != '}' && *p != ']';) p = skip(p);
  return blank(p + 1); }
static int is(char *text, const char *what) { size_t n = strlen(what); return text && !strncmp(text + 1, what, n) && text[n + 1] == '"'; }
static char *get(char *object, const char *key) {
  for (char *p = object ? blank(object + 1) : "}"; *p != '}'; p = skip(skip(p))) if (is(p, key)) return *skip(p) == 'n' ? NULL : skip(p);
  return NULL; }
static double number(char *p) { char *end; double x = strtod(p + (*p == '"'), &end); return *end == '/' ? x / strtod(end + 1, NULL) : x; }
static double *list(char *p, int *n) { /* the numbers of a list, or the one that stands there */
  *n = 0; if (!p) return NULL;
  double *x = zeros((int)(skip(p) - p)); if (*p != '[') { *n = 1, *x = number(p); return x; }
  for (p = blank(p + 1); *p != ']'; p = skip(p)) x[(*n)++] = number(p);
  return x; }
static int N; /* parameters; values come with their derivatives, dz (n, N) */
static void link(char *name, double *z, double *dz, int n, const double *in) {
  double mass = 0, peak = -INFINITY; int soft = is(name, "softmax"); FOR(i, n) if (in[i]) peak = fmax(peak, z[i]);
  if (soft || is(name, "normalise")) {
    FOR(i, n) { if (soft) z[i] = in[i] ? exp(z[i] - peak) : 0; mass += z[i]; }
    FOR(i, n) z[i] = mass == 0 ? 0 : z[i] / mass;
    FOR(j, N) { double mean = 0; FOR(i, n) mean += dz[i * N + j] * (soft ? z[i] : 1);
      FOR(i, n) dz[i * N + j] = soft ? z[i] * (dz[i * N + j] - mean) : mass == 0 ? 0 : (dz[i * N + j] - z[i] * mean) / mass; }
  } else FOR(i, n) {
    z[i] = is(name, "tanh") ? tanh(z[i]) : is(name, "sigmoid") ? 1 / (1 + exp(-z[i])) : z[i];
    FOR(j, N) dz[i * N + j] *= is(name, "tanh") ? 1 - z[i] * z[i] : is(name, "sigmoid") ? z[i] * (1 - z[i]) : 1; } }
typedef struct { int size, shape[3]; double *value, *slope; } Table;
static char *problem; static Table phi; static int S, A; static double *P, *pi;
static void add(double *z, double *dz, double by, double j) { *z += by * phi.value[(int)j]; FOR(k, N) dz[k] += by * phi.slope[(int)j * N + k]; }
static Table table(const char *name) {
  Table t = {1, {1, 1, 1}, 0, 0}; char *p = get(get(problem, "tables"), name), *q; int n, rows, width = 1;
  double *shape = list(get(p, "shape"), &n), *e, *i, *j, *v, *in; FOR(k, n) t.size *= width = t.shape[k] = (int)shape[k];
  t.value = zeros(t.size), t.slope = zeros(t.size * N), in = zeros(t.size), rows = t.size / width;
  q = get(p, "base"), e = list(get(q, "index"), &n), v = list(get(q, "value"), &n); FOR(k, n) t.value[(int)e[k]] = v[k];
  q = get(p, "slope"), e = list(get(q, "index"), &n), j = list(get(q, "feature"), &n), v = list(get(q, "value"), &n);
  FOR(k, n) add(t.value + (int)e[k], t.slope + (int)e[k] * N, v[k], j[k]);
  q = get(p, "quadratic"), e = list(get(q, "index"), &n), i = list(get(q, "first"), &n), j = list(get(q, "second"), &n), v = list(get(q, "value"), &n);
  FOR(k, n) { double half = 0; add(t.value + (int)e[k], t.slope + (int)e[k] * N, v[k] * phi.value[(int)i[k]], j[k]);
    add(&half, t.slope + (int)e[k] * N, v[k] * phi.value[(int)j[k]], i[k]); }
  e = list(get(p, "support"), &n); FOR(k, t.size) in[k] = !e; FOR(k, n) in[(int)e[k]] = 1;
  v = list(get(p, "scale"), &n);
  FOR(r, rows) { double *z = t.value + r * width, *dz = t.slope + r * width * N, by = n == 0 ? 1 : v[n == 1 ? 0 : r];
    link(get(p, "link"), z, dz, width, in + r * width); FOR(k, width) z[k] *= by; FOR(k, width * N) dz[k] *= by; }
  return t; }
static double *solve(double gamma, int transposed, double *x) { /* x becomes (I - gamma P_pi)^-1 x, or with the transpose */
  double *m = zeros(S * S), z;
  FOR(s, S) FOR(t, S) { z = s == t; FOR(a, A) z -= gamma * pi[s * A + a] * P[(s * A + a) * S + t]; m[transposed ? t * S + s : s * S + t] = z; }
  FOR(i, S) { /* elimination; these matrices are diagonally dominant by rows or by columns and need no pivoting */
    for (int k = i + 1; k < S; k++) if ((z = m[k * S + i] / m[i * S + i])) { for (int j = i; j < S; j++) m[k * S + j] -= z * m[i * S + j]; x[k] -= z * x[i]; } }
  for (int i = S - 1; i >= 0; i--) { for (int k = i + 1; k < S; k++) x[i] -= m[i * S + k] * x[k]; x[i] /= m[i * S + i]; }
  free(m); return x; }
static double *values(Table r, double gamma, double *V) { /* Q = r + gamma P V, (S * A) */
  double *Q = zeros(S * A); FOR(p, S * A) { Q[p] = r.value[p]; FOR(t, S) Q[p] += gamma * P[p * S + t] * V[t]; } return Q; }
static double largest(double *x, int n) { double most = 0; FOR(i, n) most = fmax(most, isnan(x[i]) ? INFINITY : fabs(x[i])); return most; }
static double report(const char *name, double *found, int n, char *answer, double scale) {
  double *truth = list(get(answer, "value"), &n), most = largest(truth, n); if (scale == 0) scale = most; FOR(i, n) truth[i] -= found[i];
  printf("%s %.1f\n", name, fmax(0, fmin(16, -log10(largest(truth, n) / scale)))); return most; }
int main(int argc, char **argv) {
  FILE *f = argc > 1 ? fopen(argv[1], "rb") : NULL; char *file = calloc(1, 1 << 25);
  if (!f || fread(file, 1, (1 << 25) - 1, f) < 2) stop("a file is expected");
  if (!is(get(file, "kind"), "configurable_mdp") || get(problem = get(file, "problem"), "horizon")) stop("a configurable_mdp without horizon is expected");
  double *theta = list(get(problem, "theta"), &N), *z = phi.value = zeros(N), *ones = zeros(N); phi.slope = zeros(N * N);
  FOR(j, N) z[j] = theta[j], phi.slope[j * N + j] = ones[j] = 1;
  for (char *p = blank(get(problem, "features") + 1); *p != ']'; p = skip(p)) { /* as many features as parameters, block by block */
    int n = (int)number(get(p, "length")), m; double *offset = list(get(p, "offset"), &m); FOR(i, m) z[i] += offset[i];
    link(get(p, "link"), z, phi.slope + (z - phi.value) * N, n, ones); z += n; }
  Table tP = table("transition"), rF = table("reward_follower"), rL = table("reward_leader"), mu = table("initial"), rho = table("regulariser");
  double gammaL = number(get(problem, "discount_leader")), gammaF = number(get(problem, "discount_follower")), beta = number(get(problem, "temperature"));
  double size = INFINITY, last, *V, *step, *Q; S = rF.shape[0], A = rF.shape[1], P = tP.value, pi = zeros(S * A), V = zeros(S); int count = 0;
  do { /* the follower, by Newton's method on V = T V:  Q = r_F + gamma_F P V,  T V = beta log sum exp(Q/beta) */
    last = size, step = zeros(S), Q = values(rF, gammaF, V); if (count++ > 200) stop("the follower's values did not converge");
    FOR(s, S) { double peak = -INFINITY, mass = 0, *q = Q + s * A, *row = pi + s * A; FOR(a, A) peak = fmax(peak, q[a]);
      FOR(a, A) mass += row[a] = exp((q[a] - peak) / beta); FOR(a, A) row[a] /= mass; step[s] = peak + beta * log(mass) - V[s]; }
    size = largest(solve(gammaF, 0, step), S); FOR(s, S) V[s] += step[s];
  } while (size > 0 && (size < last / 2 || size > 1e-9 * largest(V, S)));
  /* The leader and the adjoints: occupancy d, benefit B, and y, what a unit of the follower's reward is worth to the leader. */
  double *VL = zeros(S), *d = zeros(S), *e = zeros(S), *y = zeros(S * A), *parts = zeros(5 * N), *total = zeros(N), J = rho.value[0];
  FOR(p, S * A) VL[p / A] += pi[p] * rL.value[p];
  FOR(s, S) d[s] = mu.value[s]; solve(gammaL, 0, VL), solve(gammaL, 1, d), Q = values(rL, gammaL, VL);
  FOR(p, S * A) { double mean = 0; FOR(a, A) mean += pi[p / A * A + a] * Q[p / A * A + a]; y[p] = d[p / A] * pi[p] * (Q[p] - mean) / beta; }
  FOR(p, S * A) FOR(t, S) e[t] += gammaF * y[p] * P[p * S + t];
  solve(gammaF, 1, e); FOR(p, S * A) y[p] += e[p / A] * pi[p];
  FOR(s, S) { J += mu.value[s] * VL[s]; FOR(j, N) parts[j] += VL[s] * mu.slope[s * N + j]; }
  FOR(p, S * A) FOR(j, N) { double visits = d[p / A] * pi[p]; parts[N + j] += visits * rL.slope[p * N + j]; parts[3 * N + j] += y[p] * rF.slope[p * N + j];
    FOR(t, S) { double by = tP.slope[(p * S + t) * N + j]; parts[2 * N + j] += gammaL * visits * VL[t] * by; parts[3 * N + j] += gammaF * y[p] * V[t] * by; } }
  FOR(j, N) { parts[4 * N + j] = rho.slope[j]; FOR(k, 5) total[j] += parts[k * N + j]; }
  char *answer = get(file, "answer"); const char *names[] = {"initial", "direct", "transition", "response", "regulariser"};
  report("objective", &J, 1, get(answer, "objective"), 0); double scale = report("gradient", total, N, get(answer, "gradient"), 0);
  FOR(k, 5) report(names[k], parts + k * N, N, get(get(answer, "parts"), names[k]), scale); }
