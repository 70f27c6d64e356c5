// What a layer is made of, each by itself and all together.
#include "shared.h"

// What layers have in common, and where a batch's rows of one token lie. Sizes in numbers.
typedef struct {
    i64 kv_heads, queries, size, plane, page_size;
    float eps, scale;
    const float *turns;  // [positions][size]: the complex rotation of each pair
} Model;

// Tokens [begin, begin + tokens) of the batch.
typedef struct {
    i64 begin, tokens, start;
    const int32_t *pages;
} Long;

// Its first `rows` tokens are rows of one token each, the others of `num_long` longer ones.
typedef struct {
    i64 tokens, rows, width, bias_stride, num_long, num_kept;
    i64 *positions, *slots, *lengths;
    const int32_t *pages;
    const float *biases;
    const Together *together;
    const Long *longer;
    bf16 *scratch;    // as in pie_attend_causal
    const i64 *kept;  // tokens whose states are wanted, ascending; null: all
} Batch;

typedef struct {
    const void *weight;
    const float *scales, *bias;
    i64 n, k;
} Linear;

typedef struct {
    Linear qkv, output, gate, up, down;
    const bf16 *attention_norm, *mlp_norm;
    const float *head_norms;
} Layer;

static void linear(const Job *job) {
    Pieces pieces = {0};
#pragma omp parallel num_threads(pie_threads)
    linear_part(job, &pieces, take_piece(&pieces), (Next){0});
}

// scales: of int8 weights, else null. `wide` holds 32 * max(k, 256) numbers for each thread, of int8
// weights.
void pie_linear(const bf16 *x, const void *weight, const float *scales, const float *bias,
                const bf16 *other, bf16 *y, bf16 *wide, i64 rows, i64 n, i64 k, int epilogue) {
    linear(&(Job){x, other, weight, scales, bias, y, wide, rows, n, k, epilogue, 0, 0, 0});
}

// y = x / sqrt(mean(x^2) + eps) * weight, row by row
void pie_rms_norm(const bf16 *x, const bf16 *weight, bf16 *y, i64 rows, i64 size, float eps) {
#pragma omp parallel for num_threads(pie_threads) schedule(static) if (rows * size > WORTH_SHARING)
    for (i64 row = 0; row < rows; row++) norm_row(x + row * size, weight, y + row * size, size, eps);
}

// logits [rows][size]
void pie_likeliest(const bf16 *logits, i64 *tokens, i64 rows, i64 size) {
#pragma omp parallel for num_threads(pie_threads) schedule(static) if (rows * size > WORTH_SHARING)
    for (i64 row = 0; row < rows; row++) tokens[row] = likeliest_of(logits + row * size, size);
}

// qkv [tokens][stride]: query and key heads first. norms float32 [heads][size] or null, turns
// float32 [positions][size]: the complex rotation of each pair.
void pie_place(bf16 *qkv, const float *norms, const float *turns, const i64 *positions, i64 tokens,
               i64 stride, i64 heads, i64 size, float eps) {
#pragma omp parallel for num_threads(pie_threads) schedule(static) if (tokens * heads * size > WORTH_SHARING)
    for (i64 token = 0; token < tokens; token++)
        for (i64 head = 0; head < heads; head++)
            place_head(qkv + token * stride + head * size, norms ? norms + head * size : 0,
                       turns + positions[token] * size, size, eps);
}

// k, v [tokens][stride] to the planes of a layer, [2][heads][plane]; slots count tokens.
void pie_write(const bf16 *k, const bf16 *v, bf16 *planes, const i64 *slots, i64 tokens, i64 stride,
               i64 heads, i64 size, i64 plane) {
#pragma omp parallel for num_threads(pie_threads) schedule(static) if (tokens * heads * size > WORTH_SHARING)
    for (i64 token = 0; token < tokens; token++)
        for (i64 head = 0; head < heads; head++) {
            const i64 from = token * stride + head * size, to = slots[token] * size;
            memcpy(planes + head * plane + to, k + from, size * sizeof(bf16));
            memcpy(planes + (heads + head) * plane + to, v + from, size * sizeof(bf16));
        }
}

// All levels and then each row by itself; pieces: [MAX_LEVELS + 1]
static void attend_all_part(const Rows *all, Pieces *pieces) {
    for (i64 level = 0; all->together && level < all->together->num_levels; level++) {
        gather_part(all, level, pieces + level);
#pragma omp barrier
    }
    attend_part(all, pieces + MAX_LEVELS);
}

// q [rows][q_stride] -> out [rows][kv_heads * queries * size]. planes [2][kv_heads][plane];
// pages [rows][width]; lengths [rows]; biases [rows][bias_stride] float32 or null; together or null.
void pie_attend_rows(const bf16 *q, const bf16 *planes, const int32_t *pages, const i64 *lengths,
                     const float *biases, bf16 *out, i64 rows, i64 q_stride, i64 kv_heads,
                     i64 queries, i64 size, i64 plane, i64 page_size, i64 width, i64 bias_stride,
                     float scale, const Together *together) {
    const Rows all = {q,        planes,  pages, lengths, biases,    out,   rows,        q_stride,
                      kv_heads, queries, size,  plane,   page_size, width, bias_stride, scale,
                      together};
    Pieces pieces[MAX_LEVELS + 1] = {0};
#pragma omp parallel num_threads(pie_threads)
    attend_all_part(&all, pieces);
}

// q [tokens][q_stride] -> out [tokens][kv_heads * queries * size]; planes as above; scratch holds 2 *
// kv_heads * size numbers for each token of the context, rounded up to 32 tokens.
void pie_attend_causal(const bf16 *q, const bf16 *planes, const int32_t *pages, bf16 *scratch,
                       bf16 *out, i64 tokens, i64 start, i64 q_stride, i64 kv_heads, i64 queries,
                       i64 size, i64 plane, i64 page_size, float scale) {
    const Row row = {q,        planes,  pages, scratch, out,       tokens, start, q_stride,
                     kv_heads, queries, size,  plane,   page_size, scale};
#pragma omp parallel num_threads(pie_threads)
    attend_causal_part(&row);
}

// Places query and key of each token, and puts key and value where they belong.
static void place_part(const Model *model, const Batch *batch, const float *norms, bf16 *qkv,
                       bf16 *planes) {
    const i64 size = model->size, kv_heads = model->kv_heads;
    const i64 rotated = kv_heads * (model->queries + 1), heads = rotated + kv_heads;
#pragma omp for schedule(static) nowait
    for (i64 i = 0; i < batch->tokens * heads; i++) {
        const i64 token = i / heads, head = i % heads;
        bf16 *x = qkv + i * size;
        if (head < rotated)
            place_head(x, norms ? norms + head * size : 0,
                       model->turns + batch->positions[token] * size, size, model->eps);
        const i64 plane = head - kv_heads * model->queries;  // keys, then values
        if (plane >= 0)
            memcpy(planes + plane * model->plane + batch->slots[token] * size, x, size * sizeof *x);
    }
}

static Job job_of(const Linear *linear, const bf16 *x, bf16 *y, bf16 *wide, i64 rows) {
    return (Job){.x = x, .weight = linear->weight, .scales = linear->scales, .bias = linear->bias,
                 .y = y, .wide = wide, .rows = rows, .n = linear->n, .k = linear->k};
}

static Job normed(Job job, const bf16 *norm, float eps) {
    job.norm = norm;
    job.eps = eps;
    return job;
}

static Job followed(Job job, int epilogue, const bf16 *other) {
    job.epilogue = epilogue;
    job.other = other;
    return job;
}

// The products of a layer, of which each reads what the one before has written.
enum { QKV, OUTPUT, GATE, DOWN, PRODUCTS };

typedef struct {
    Job jobs[PRODUCTS], up;
    Rows rows;
    const float *head_norms;
    bf16 *qkv, *planes;
    Pieces pieces[PRODUCTS], tasks[MAX_LEVELS + 1];
} Work;

// Where results of one layer are, until the next one overwrites them.
typedef struct {
    bf16 *hidden, *qkv, *seen, *inner, *wide;
} Memory;

static void lay_out(const Model *model, const Batch *batch, const Layer *layer, bf16 *planes,
                    int last, Memory at, Work *work) {
    const i64 rows = last && batch->kept ? batch->num_kept : batch->tokens;
    *work = (Work){.head_norms = layer->head_norms, .qkv = at.qkv, .planes = planes};
    work->jobs[QKV] = normed(job_of(&layer->qkv, at.hidden, at.qkv, at.wide, batch->tokens),
                             layer->attention_norm, model->eps);
    work->jobs[OUTPUT] =
        followed(job_of(&layer->output, at.seen, at.hidden, at.wide, rows), PLUS, at.hidden);
    work->up = followed(job_of(&layer->up, at.hidden, at.inner, at.wide, rows), TIMES, at.inner);
    work->jobs[GATE] = normed(followed(job_of(&layer->gate, at.hidden, at.inner, at.wide, rows), SILU, 0),
                              layer->mlp_norm, model->eps);
    work->jobs[GATE].then = &work->up;
    work->jobs[DOWN] =
        followed(job_of(&layer->down, at.inner, at.hidden, at.wide, rows), PLUS, at.hidden);
    work->rows = (Rows){at.qkv, planes, batch->pages, batch->lengths, batch->biases, at.seen, batch->rows,
                        layer->qkv.n, model->kv_heads, model->queries, model->size, model->plane,
                        model->page_size, batch->width, batch->bias_stride, model->scale,
                        batch->together};
}

static void attend_longer_part(const Batch *batch, const Rows *rows) {
    const i64 width = rows->kv_heads * rows->queries * rows->size;
    for (const Long *one = batch->longer; one < batch->longer + batch->num_long; one++) {
        const Row row = {rows->q + one->begin * rows->q_stride, rows->planes, one->pages,
                         batch->scratch, rows->out + one->begin * width, one->tokens, one->start,
                         rows->q_stride, rows->kv_heads, rows->queries, rows->size, rows->plane,
                         rows->page_size, rows->scale};
        attend_causal_part(&row);
    }
}

// What the last layer goes on with lies at the beginning, in order.
static void keep(const Batch *batch, const Work *work) {
    const Job *output = &work->jobs[OUTPUT];
    for (i64 i = 0; i < batch->num_kept; i++) {
        const i64 from = batch->kept[i];
        memmove(work->rows.out + i * output->k, output->x + from * output->k, output->k * sizeof(bf16));
        memmove(output->y + i * output->n, output->other + from * output->n, output->n * sizeof(bf16));
    }
}

static void attention_part(const Model *model, const Batch *batch, Work *work, int last) {
    place_part(model, batch, work->head_norms, work->qkv, work->planes);
#pragma omp barrier
    if (batch->rows) attend_all_part(&work->rows, work->tasks);
    attend_longer_part(batch, &work->rows);
#pragma omp barrier
    if (!last || !batch->kept) return;
#pragma omp single
    keep(batch, work);
}

static void layer_part(const Model *model, const Batch *batch, Work *work, int last, i64 *first) {
    for (int product = QKV; product < PRODUCTS; product++) {
        Work *owner = product == DOWN ? work + 1 : work;
        const int following = (product + 1) % PRODUCTS;
        const Next next = {&owner->jobs[following], &owner->pieces[following]};
        *first = linear_part(&work->jobs[product], &work->pieces[product], *first,
                             last && product == DOWN ? (Next){0} : next);
#pragma omp barrier
        if (product == QKV) attention_part(model, batch, work, last);
    }
}

// All layers: hidden [tokens][numbers], in place; of the tokens kept at its beginning. planes:
// [layers], as in pie_attend_rows. work: [layers].
void pie_layers(const Model *model, const Batch *batch, const Layer *layers, bf16 *const *planes,
                i64 count, bf16 *hidden, bf16 *qkv, bf16 *seen, bf16 *inner, bf16 *wide, Work *work) {
    const Memory at = {hidden, qkv, seen, inner, wide};
    for (i64 i = 0; i < count; i++)
        lay_out(model, batch, layers + i, planes[i], i == count - 1, at, work + i);
#pragma omp parallel num_threads(pie_threads)
    {
        i64 first = take_piece(&work->pieces[QKV]);
        for (i64 i = 0; i < count; i++) layer_part(model, batch, work + i, i == count - 1, &first);
    }
}

// A page that a row enters must hold numbers: see `clear_pages`.
static void clear(const Model *model, bf16 *const *planes, i64 count, i64 page) {
    const i64 numbers = model->page_size * model->size;
    for (i64 i = 0; i < count; i++)
        for (i64 plane = 0; plane < 2 * model->kv_heads; plane++)
            memset(planes[i] + plane * model->plane + page * numbers, 0, numbers * sizeof(bf16));
}

// Rows of one token each go on to the next one, in pages that they have: where they stand, and where
// keys and values go.
static void go_on(const Model *model, const Batch *batch, bf16 *const *planes, i64 count) {
    for (i64 row = 0; row < batch->rows; row++) {
        const i64 place = batch->lengths[row]++, within = place % model->page_size;
        const i64 page = batch->pages[row * batch->width + place / model->page_size];
        if (!within) clear(model, planes, count, page);
        batch->positions[row]++;
        batch->slots[row] = page * model->page_size + within;
    }
}

static void embed(const bf16 *embedding, const i64 *tokens, bf16 *hidden, i64 rows, i64 numbers) {
    for (i64 row = 0; row < rows; row++)
        memcpy(hidden + row * numbers, embedding + tokens[row] * numbers, numbers * sizeof(bf16));
}

// What is before all layers and behind them.
typedef struct {
    const bf16 *embedding, *norm;
    Linear head;
    // pie_screen and what it knows of the head, or null.
    void (*screen)(const bf16 *, const bf16 *, const uint8_t *, const float *, const float *,
                   const float *, i64 *, i64, i64, i64);
    const bf16 *weight;
    const uint8_t *packed;
    const float *scales, *errors, *lengths;
} Ends;

enum { MOST_SCREENED = 256 /* rows at a time; as in screen.py */ };

static int screen(const Ends *ends, const bf16 *states, i64 *tokens, i64 rows) {
    const i64 n = ends->head.n, k = ends->head.k;
    int is_told = ends->screen != 0;
    for (i64 row = 0; is_told && row < rows; row += MOST_SCREENED) {
        const i64 count = min64(rows - row, MOST_SCREENED);
        ends->screen(states + row * k, ends->weight, ends->packed, ends->scales, ends->errors,
                     ends->lengths, tokens + row, count, n, k);
        for (i64 i = row; i < row + count; i++) is_told &= tokens[i] >= 0;
    }
    return is_told;
}

// All layers for rows of one token each, tokens [rows]: those of the batch, or, if they go on, the next
// ones. hidden: the states after the last norm. With room for logits [rows][n], tokens become the
// likeliest. The rest as in pie_layers.
void pie_walk(const Model *model, const Batch *batch, const Layer *layers, bf16 *const *planes,
              i64 count, bf16 *hidden, bf16 *qkv, bf16 *seen, bf16 *inner, bf16 *wide, Work *work,
              const Ends *ends, i64 *tokens, bf16 *logits, int goes_on) {
    const i64 rows = batch->rows, numbers = layers->qkv.k;
    if (goes_on) go_on(model, batch, planes, count);
    embed(ends->embedding, tokens, hidden, rows, numbers);
    pie_layers(model, batch, layers, planes, count, hidden, qkv, seen, inner, wide, work);
    pie_rms_norm(hidden, ends->norm, hidden, rows, numbers, model->eps);
    if (!logits || screen(ends, hidden, tokens, rows)) return;
    const Job head = job_of(&ends->head, hidden, logits, wide, rows);
    linear(&head);
    pie_likeliest(logits, tokens, rows, ends->head.n);
}

i64 pie_layers_work_size(void) { return sizeof(Work); }
