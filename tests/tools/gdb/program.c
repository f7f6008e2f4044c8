#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static volatile int stop;

__attribute__((noinline)) static void work(int number, int forever) {
    if (forever)
        fclose(fopen("ready", "w"));
    while (forever && !stop)
        usleep(1000);
    printf("worked on %d\n", number);
    fflush(stdout);
}

static void *thread(void *argument) {
    work(7, *(int *)argument);
    return NULL;
}

int main(int count, char **arguments) {
    (void)arguments;
    int forever = count > 1;
    pthread_t id;
    if (pthread_create(&id, NULL, thread, &forever) != 0)
        return 1;
    return pthread_join(id, NULL);
}
